//! The addresses of real servers.

/// The value of an environment variable that names a real server; prints why the test is skipped when it is not set.
#[allow(dead_code)]
pub fn server(variable: &str) -> Option<String> {
    let address = std::env::var(variable).ok().filter(|a| !a.is_empty());
    if address.is_none() {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        // Straight to the terminal: what a test prints is shown only when it fails, and this must be seen.
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "skipped: {test}: {variable} is not set (make stack-up)");
    }
    address
}
