//! Tests of the metrics as a whole.
