//! The C libraries of this build, for the tests that need them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where `libminiflow.so` and `libminiflow.a` of this profile are, built if need be.
pub(crate) fn libraries() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        // CARGO_TARGET_TMPDIR is `<target dir>/tmp`.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
        cargo
            .args(["build", "--lib", "--quiet", "--target-dir"])
            .arg(target)
            .current_dir(root());
        let dir = if cfg!(debug_assertions) {
            target.join("debug")
        } else {
            cargo.arg("--release");
            target.join("release")
        };
        assert!(cargo.status().unwrap().success(), "cargo build --lib");
        for name in ["libminiflow.so", "libminiflow.a"] {
            assert!(dir.join(name).exists(), "{name} was not built");
        }
        // Programs are linked against the SONAME.
        let soname = dir.join("libminiflow.so.0");
        if !soname.exists() {
            let _ = std::os::unix::fs::symlink("libminiflow.so", &soname); // another test may win
        }
        dir
    })
}

/// Runs a command that must succeed; its standard output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
