//! For orchestrators and load balancers: is the process alive, may it be asked.

/// `/health/live`: the process serves. Nothing is looked at.
pub async fn live() -> &'static str {
    "alive\n"
}
