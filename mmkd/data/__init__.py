"""Data sets in one HDF5 layout: write your own, import known ones, make synthetic ones, read them standardised."""

from mmkd.data.dataset import SPLITS, Split
from mmkd.data.hdf5_format import DatasetInfo, check_dataset, read_info
from mmkd.data.hdf5_write import write_dataset
from mmkd.data.reading import keep_split, read_split, read_statistics
from mmkd.data.splits import choose_split, divide
from mmkd.data.synthetic import make_synthetic

__all__ = [
    "SPLITS",
    "DatasetInfo",
    "Split",
    "check_dataset",
    "choose_split",
    "divide",
    "keep_split",
    "make_synthetic",
    "read_info",
    "read_split",
    "read_statistics",
    "write_dataset",
]
