"""Images in and out: Cloud-Optimized GeoTIFF, PNG and WebP; where they lie and what they say of themselves."""
