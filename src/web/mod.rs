//! The protocols. Sees the [`store`](crate::store) and the formats, never a log, a delegate or a coordinator.
