"""Dark pipeline: dark current of every pixel against temperature and exposure, with errors."""
