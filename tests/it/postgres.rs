//! PostgreSQL databases for tests, each with PostGIS in it and gone after the test, so that tests and whole runs beside each
//! other do not meet.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::real::server;

/// Made once per server, since installing PostGIS takes a second and copying a database does not.
const TEMPLATE: &str = "alluvium_test_template";

pub struct Database {
    server: String,
    name: String,
    pub url: String,
}

/// `None`, with a word on why, where there is no server.
pub async fn database() -> Option<Database> {
    let server = server("ALLUVIUM_POSTGRES")?;
    let name = format!("test_{}", alluvium::model::new_id().replace('-', "_"));
    let mut admin = PgConnection::connect(&server).await.unwrap();
    run(&mut admin, "SELECT pg_advisory_lock(4711)").await;
    let template = format!("SELECT 1 FROM pg_database WHERE datname = '{TEMPLATE}'");
    if sqlx::raw_sql(AssertSqlSafe(template)).fetch_optional(&mut admin).await.unwrap().is_none() {
        let making = format!("{TEMPLATE}_in_the_making");
        run(&mut admin, &format!("DROP DATABASE IF EXISTS {making}")).await;
        run(&mut admin, &format!("CREATE DATABASE {making} TEMPLATE template0")).await;
        let mut inside = PgConnection::connect(&beside(&server, &making)).await.unwrap();
        run(&mut inside, "CREATE EXTENSION postgis").await;
        inside.close().await.unwrap();
        run(&mut admin, &format!("ALTER DATABASE {making} RENAME TO {TEMPLATE}")).await;
    }
    run(&mut admin, &format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await;
    admin.close().await.unwrap();
    let url = beside(&server, &name);
    Some(Database { server, name, url })
}

impl Database {
    /// Runs statements as another tool would.
    pub async fn run(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        run(&mut connection, sql).await;
        connection.close().await.unwrap();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // The test's runtime is not to be blocked on from inside.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut admin = PgConnection::connect(&server).await.unwrap();
                run(&mut admin, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
            });
        });
        if dropped.join().is_err() {
            eprintln!("database {} is left behind", self.name);
        }
    }
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap();
}

/// The URL of another database of the same server.
fn beside(server: &str, database: &str) -> String {
    let (before, _) = server.rsplit_once('/').unwrap();
    format!("{before}/{database}")
}
