//! Rebuilds the program when a migration is added: `sqlx::migrate!` reads the folder, cargo does not know it.

fn main() {
    println!("cargo:rerun-if-changed=../sql/migrations");
}
