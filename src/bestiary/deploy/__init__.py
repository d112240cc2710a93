"""Out of torch: graphs that other runtimes run, a check that they say what the model says, and predictors over them."""
