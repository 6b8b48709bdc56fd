//! Requests in, Loki's acknowledgements out, each tenant for itself.
