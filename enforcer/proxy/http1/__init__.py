"""HTTP/1.1 (RFC 9112): each request read, judged, and written anew. Entered by layer.py."""
