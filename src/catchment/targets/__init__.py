"""What is built from the log: the contract, its fake, and one package for each kind of target."""
