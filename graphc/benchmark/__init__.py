"""How fast code runs: timing in processes of their own, the machine's limits, growth with size; what `graphc bench` shows."""
