"""How good a network is: one count of pixels over the whole data set, the scores from it, and the report."""
