"""The settings of the commands of evals, one frozen record a verb; light, so that helps are instant."""
