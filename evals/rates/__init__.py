"""From judged answers to rates and differences with confidence limits."""
