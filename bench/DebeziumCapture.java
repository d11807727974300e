import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.io.FileInputStream;
import java.io.InputStream;
import java.lang.management.ManagementFactory;
import java.util.Properties;

/** Runs Debezium's engine until so many events have come; prints the seconds, and seconds of CPU, from the first on. */
public final class DebeziumCapture {
    private static final com.sun.management.OperatingSystemMXBean SYSTEM =
            (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();

    private static long seen;
    private static long began;
    private static long used;

    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        try (InputStream file = new FileInputStream(arguments[0])) {
            settings.load(file);
        }
        long expected = Long.parseLong(arguments[1]);
        DebeziumEngine<ChangeEvent<String, String>> engine = DebeziumEngine.create(Json.class)
                .using(settings)
                .using((success, message, error) -> {
                    System.err.println(message);
                    Runtime.getRuntime().halt(1);
                })
                .notifying((events, committer) -> {
                    if (seen == 0) {
                        began = System.nanoTime();
                        used = SYSTEM.getProcessCpuTime();
                    }
                    for (ChangeEvent<String, String> event : events) {
                        committer.markProcessed(event);
                    }
                    committer.markBatchFinished();
                    seen += events.size();
                    if (seen >= expected) {
                        double seconds = (System.nanoTime() - began) / 1e9;
                        System.out.println(seconds + " " + (SYSTEM.getProcessCpuTime() - used) / 1e9);
                        System.out.flush();
                        Runtime.getRuntime().halt(0);
                    }
                })
                .build();
        engine.run();
    }
}
