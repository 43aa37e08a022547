"""Linear probe on CLIP's frozen image features."""

from runs.methods import Row, register_rows

ROW = Row("LP-CLIP", 40, "linearprob.sh {dataset} {name} all")
register_rows([ROW])
