"""Weights from elsewhere: the authors', mmsegmentation's and PaddleSeg's, into the network here and back."""
