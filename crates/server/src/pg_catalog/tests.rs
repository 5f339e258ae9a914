//! The queries of psql and of drivers, planned and run by DataFusion alone.
