"""Sequences: views of a snapshot come in; a vocabulary and, per index day and shard, a token store go out.

A token store is flat arrays (tokens, ages, days, visit numbers, offsets, subjects), memory-mapped; nothing is
padded before a batch is made.
"""

from ml.sequences.batches import Batch, Item, gather, plan
from ml.sequences.form import CompiledForm, Form
from ml.sequences.prepare import make_store, make_vocabulary, prepare, run_stores
from ml.sequences.store import open_store, store_path
from ml.sequences.tokens import Sequences, tokenise
from ml.sequences.vocabulary import Vocabulary, load_vocabulary

__all__ = [
    "Batch",
    "CompiledForm",
    "Form",
    "Item",
    "Sequences",
    "Vocabulary",
    "gather",
    "load_vocabulary",
    "make_store",
    "make_vocabulary",
    "open_store",
    "plan",
    "prepare",
    "run_stores",
    "store_path",
    "tokenise",
]
