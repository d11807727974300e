"""What other programs ask a running hub over HTTP."""
