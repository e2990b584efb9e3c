"""Side-by-side measurements: `make bench`. Each compares two ways in one run, for the machine is noisy."""
