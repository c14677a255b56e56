//! The in-memory index of features written and not yet aged off.
