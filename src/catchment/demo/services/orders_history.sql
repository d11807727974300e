-- What the orders service has of the past. Temporary tables: past, past_lines (see history.py).

INSERT INTO orders (id, customer_id, status, total, placed_at, changed_at)
SELECT id, customer_id,
       CASE WHEN returned_at IS NOT NULL THEN 'returned'
            WHEN cancelled_at IS NOT NULL THEN 'cancelled'
            WHEN delivered_at IS NOT NULL THEN 'delivered'
            WHEN shipped_at IS NOT NULL THEN 'shipped'
            WHEN paid_at IS NOT NULL THEN 'paid'
            ELSE 'placed' END::order_status,
       total, placed_at,
       greatest(placed_at, paid_at, shipped_at, delivered_at, cancelled_at, returned_at)
FROM past;

INSERT INTO order_lines SELECT * FROM past_lines;

SELECT setval(pg_get_serial_sequence('orders', 'id'), max(id)) FROM orders;
