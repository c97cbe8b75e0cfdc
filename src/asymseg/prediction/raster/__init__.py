"""Rasters of any size: read window by window, predicted tile by tile, written as cloud-optimised GeoTIFF."""
