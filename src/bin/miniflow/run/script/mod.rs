//! `miniflow run SCRIPT.py`: a Python script's `main(params, context)`, on workers that are forked
//! from one interpreter.

mod archive;
mod library;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use miniflow::Builder;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;

use super::args::{Args, Crew, processors};
use super::executable;
use super::feed::Form;
use crate::error::{Error, Result};

/// Runs in the interpreter that becomes the zygote. Its argument is a descriptor with the setup, which
/// is read anew when a zygote that died is started again.
const BOOT: &str = "
import ctypes, json, os, sys
if sys.version_info < (3, 9):
    sys.exit('miniflow run: Python 3.9 or newer is needed, this is ' + sys.version.split()[0])
fd = int(sys.argv[1])
setup = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
ctypes.CDLL(None).prctl(1, 9) # PR_SET_PDEATHSIG, SIGKILL: while it imports, it hears of nothing
if os.getppid() != setup['host']:
    sys.exit(1)
os.environ['MINIFLOW_LIBRARY'] = setup['library']
sys.path[:] = setup['sys_path'] + [entry for entry in sys.path if entry]
sys.argv = ['miniflow']
from miniflow._worker.zygote import main
sys.exit(main(setup))
";

/// A script, and all that is needed to run it.
#[derive(Debug)]
pub(super) struct Script {
    /// As a JSON string.
    path: String,
    python: PathBuf,
    /// What the zygote has to know; open as long as the engine.
    setup: OwnedFd,
    /// The package that workers import, an unnamed file; as long.
    package: OwnedFd,
}

impl Script {
    /// Checks that there is everything, before anything is started.
    pub(super) fn find(path: &Path, args: &Args, crew: &Crew) -> Result<Self> {
        let path = readable(path)?;
        let name = args.python.as_deref().unwrap_or(Path::new("python3"));
        let python = executable::find(name.as_os_str()).map_err(|why| {
            let advice = "--python names another interpreter";
            Error::Usage(format!("cannot run Python by {why}; {advice}"))
        })?;
        let library = library::find(&python)?;
        let library = library.to_str().ok_or_else(|| {
            let shown = library.display();
            Error::Usage(format!("the library's path is not UTF-8: {shown}"))
        })?;
        let package = unnamed_file(&archive::package())?;
        let setup = json!({
            "sys_path": [format!("/proc/self/fd/{}", package.as_raw_fd())],
            "library": library,
            "host": std::process::id(),
            "preload": args.preload,
            "initializer": null,
            "capture": false,
            "blas_threads": (processors() / crew.workers).max(1),
            "memory_limit": null,
            "first_io_worker": 0, // the workers of a run are of one class
        });
        Ok(Self {
            path: json!(path).to_string(),
            python,
            setup: unnamed_file(setup.to_string().as_bytes())?,
            package,
        })
    }

    /// How the workers are told of a task.
    pub(super) fn form(&self) -> Form {
        Form::Script {
            path: self.path.clone(),
        }
    }

    /// An engine whose workers run Python.
    pub(super) fn engine(&self, builder: Builder) -> Builder {
        let setup = self.setup.as_raw_fd().to_string();
        // Unbuffered: what a script prints before it crashes is what its author needs.
        let options = ["-u", "-c", BOOT, &setup];
        let argv = [self.python.as_os_str()]
            .into_iter()
            .chain(options.iter().map(AsRef::as_ref));
        builder
            .zygote_program(argv)
            .inherit([self.setup.as_raw_fd(), self.package.as_raw_fd()])
    }
}

/// The absolute path of a script that can be read.
fn readable(path: &Path) -> Result<String> {
    let shown = path.display();
    let refuse = |why: &dyn std::fmt::Display| {
        Error::Usage(format!("cannot read the script {shown}: {why}"))
    };
    let file = File::open(path).map_err(|e| refuse(&e))?;
    let metadata = file.metadata().map_err(|e| refuse(&e))?;
    if !metadata.is_file() {
        return Err(refuse(&"it is not a regular file"));
    }
    let path = std::path::absolute(path).map_err(|e| refuse(&e))?;
    let path = path
        .to_str()
        .ok_or_else(|| refuse(&"its path is not UTF-8"))?;
    Ok(path.to_owned())
}

/// A file that nobody else can see, with this content.
fn unnamed_file(content: &[u8]) -> Result<OwnedFd> {
    let fd = memfd_create("miniflow-run", MemfdFlags::CLOEXEC);
    let mut file = File::from(fd.map_err(Error::system("memfd_create"))?);
    file.write_all(content).map_err(Error::system("write"))?;
    Ok(file.into())
}
