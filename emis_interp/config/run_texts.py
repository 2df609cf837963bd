"""Turns a run's configuration into the pairs of answers on which every model is read."""

from emis_interp.config.run_config import RunConfig
from emis_interp.errors import DataError
from emis_interp.files.reading import Reading
from emis_interp.records import ContrastPair
from emis_interp.texts.contrast import load_contrast
from emis_interp.texts.judged import matched_pairs, read_judged


def contrast_pairs(config: RunConfig) -> list[ContrastPair]:
    """The pairs of a run: the shipped ones, those of a file, or pairs of judged answers to one question.

    Raises:
        ConfigError, DataError: no such file, or one that holds something else.
    """
    name, n = config.direction.contrast, config.direction.n_pairs_per_question
    if name == "shipped":
        return load_contrast(None, n)
    path = config.find_data(name)
    if path.suffix == ".jsonl":
        return load_contrast(path, n)
    words = config.direction.contrast_table
    reading = Reading.of(words.columns, words.scale, words.invert, by=words.by, runs=words.runs)
    try:
        frame = read_judged(path, reading=reading, use="taken")
    except DataError as error:
        raise DataError(f"{error} (of a run: direction.contrast_table, with these words)") from None
    return matched_pairs(frame, n or 20, config.seed)
