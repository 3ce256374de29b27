"""Images in and out: Cloud-Optimized GeoTIFF and PNG."""
