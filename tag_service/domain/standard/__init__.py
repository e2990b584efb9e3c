"""What the standard lays down: VRs, values, character sets, dictionary, and the limits and problems of our own."""
