//! Bytes to model and back, streaming, without HTTP.
