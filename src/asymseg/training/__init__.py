"""Learning: the loop, its losses, its optimizer, what it keeps on disk and what it shows."""
