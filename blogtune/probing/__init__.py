"""Does a model know what the blog says? Asked without a judge, by likelihoods alone."""
