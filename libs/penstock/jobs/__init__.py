"""Jobs: what they are (`spec`), what came of them (`result`), and the executors that run them."""
