def filter_logits(logits, temperature, min_p, top_k, top_p):
    raise NotImplementedError
