"""Pure operations on changes: whole Arrow columns in, whole Arrow columns out, no input or output."""
