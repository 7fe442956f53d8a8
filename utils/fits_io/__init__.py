"""Files in and out: atomic writes, keywords, header scan, row blocks, products, capture logs."""
