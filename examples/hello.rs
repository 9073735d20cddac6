//! The smallest host: `cargo run --example hello -- some words`.
#![allow(clippy::print_stdout, reason = "a program")]

use miniflow::{Class, Engine, Error};

fn main() -> Result<(), Error> {
    // The handler runs in forked worker processes, on what is in memory here and now.
    let engine = Engine::builder()
        .handler(|task| {
            let upper = task.payload().to_ascii_uppercase();
            Ok(task.reply(&upper)?)
        })
        .workers(Class::CpuBound, 2)
        .start()?;

    for word in std::env::args().skip(1) {
        engine.submit(word.as_bytes())?;
    }
    for completion in engine.completions() {
        println!(
            "{} from worker {}, after {:?}",
            completion.text(),
            completion.worker(),
            completion.queued() + completion.ran(),
        );
    }
    engine.stop(None)
}
