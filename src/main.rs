//! The `onced` binary: arguments in, exit status out, and the allocator.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Whether the process was started with its standard output closed (`>&-`). Before `main` the
/// standard library opens /dev/null in its place, and what is written then is lost without an error.
static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

ctor::declarative::ctor! {
    #[ctor(unsafe)]
    fn look_for_stdout() {
        let closed = rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err();
        STDOUT_WAS_CLOSED.store(closed, Ordering::Relaxed);
    }
}

fn main() -> ExitCode {
    #[cfg(feature = "jemalloc")]
    onced::allocator::settle();
    let has_stdout = !STDOUT_WAS_CLOSED.load(Ordering::Relaxed);
    run(Cli::parse(), has_stdout)
}

#[cfg(all(test, feature = "jemalloc"))]
mod tests {
    use tikv_jemalloc_ctl::{Access, AsName};

    /// What the allocator says of itself.
    fn told(name: &str) -> Option<usize> {
        format!("arenas.{name}\0").as_str().name().read().ok()
    }

    #[test]
    fn the_allocator_has_read_its_settings() {
        let mut classes = 0..100;
        let class = classes.find(|n| told(&format!("bin.{n}.size")) == Some(2 << 10));
        let run = class.and_then(|n| told(&format!("bin.{n}.slab_size")));
        assert!(run.is_some());
        assert_eq!(run, told("page").map(|page| 16 * page));
    }
}
