"""The planet over HTTP: a rio-tiler reader, an application, a page with a map."""
