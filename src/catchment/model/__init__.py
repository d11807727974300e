"""What flows through Catchment: values only, no input or output."""
