//! The `onced` binary: arguments in, exit status out, and the allocator.

use std::process::ExitCode;

use clap::Parser;
use onced::cli::{Cli, run};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: onced::allocator::Jemalloc = onced::allocator::JEMALLOC;

/// What the allocator reads before it begins.
#[cfg(feature = "jemalloc")]
#[allow(unsafe_code, reason = "by this name it is found")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static SETTINGS: onced::allocator::Settings = onced::allocator::SETTINGS;

fn main() -> ExitCode {
    #[cfg(feature = "jemalloc")]
    onced::allocator::settle();
    run(Cli::parse())
}

#[cfg(all(test, feature = "jemalloc"))]
mod tests {
    use tikv_jemalloc_ctl::{Access, AsName};

    /// What the allocator says of a size class.
    fn of_class(class: u32, what: &str) -> usize {
        let name = format!("arenas.bin.{class}.{what}\0");
        name.name().read().unwrap()
    }

    #[test]
    fn the_allocator_has_read_its_settings() {
        let mut classes = 0..;
        let class = classes.find(|class| of_class(*class, "size") == 2 << 10);
        let page: usize = "arenas.page\0".name().read().unwrap();
        assert_eq!(of_class(class.unwrap(), "slab_size"), 16 * page);
    }
}
