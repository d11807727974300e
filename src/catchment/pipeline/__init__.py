"""The two loops, collect and deliver, and the processes that host them."""
