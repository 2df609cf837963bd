"""From residuals of labelled texts to probes that read misalignment, each beside what could explain it away."""
