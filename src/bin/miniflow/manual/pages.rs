//! What help and man pages say beside descriptions and options.

/// One command.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) command: &'static str,
    /// Command lines and what they do.
    pub(super) examples: &'static [(&'static str, &'static str)],
    /// Variables that mean something to this command.
    pub(super) environment: &'static [(&'static str, &'static str)],
    /// Empty: as everywhere, [`EXIT_STATUS`].
    pub(super) exit_status: &'static [(&'static str, &'static str)],
}

/// Headings of the help, and the commands below them.
pub(super) const GROUPS: [(&str, &[&str]); 5] = [
    ("Run tasks", &["run"]),
    ("See what engines do", &["ls", "status", "top", "metrics"]),
    ("Look after the machine", &["doctor", "clean"]),
    ("Measure and test", &["bench", "chaos"]),
    ("Set up", &["completions", "man"]),
];

pub(super) const EXIT_STATUS: [(&str, &str); 3] = [
    ("0", "All went well"),
    ("1", "The command failed; the message says why"),
    ("2", "Wrong command line"),
];

/// What all commands heed.
pub(super) const ENVIRONMENT: [(&str, &str); 1] = [(
    "MINIFLOW_LOG",
    "What the library says is shown: a level (error, warn, info, debug, trace), or levels by module as \
     in miniflow::engine=debug,warn. The option --verbose goes before it",
)];

pub(super) const PAGES: &[Page] = &[
    Page {
        command: "run",
        examples: &[
            (
                "miniflow run resize.py --params images.jsonl --workers 4 --out results.jsonl",
                "Calls main(params, context) of the script for each line of the file",
            ),
            (
                "miniflow run resize.py --params images.jsonl --out results.jsonl --resume",
                "Goes on where an earlier run was interrupted",
            ),
            (
                "miniflow run --program --params - -- sed -u 's/e/E/g'",
                "Passes the lines of standard input to processes of sed, one for each processor",
            ),
        ],
        environment: &[
            (
                "MINIFLOW_LIBRARY",
                "The libminiflow.so that Python workers load, instead of the one beside the executable",
            ),
            ("MINIFLOW_LOG", "As in miniflow(1)"),
        ],
        exit_status: &[
            ("0", "Every task completed"),
            ("1", "Some did not, or something else went wrong"),
            (
                "2",
                "Wrong command line, or something that it names is missing; nothing was started",
            ),
            ("130", "Interrupted by Ctrl-C (SIGINT)"),
            ("143", "Ended by SIGTERM"),
        ],
    },
    Page {
        command: "ls",
        examples: &[
            ("miniflow ls", "A table of the engines"),
            (
                "miniflow ls --json | jq -r '.engines[] | select(.state == \"running\").name'",
                "The names of those that run",
            ),
        ],
        environment: &[],
        exit_status: &[],
    },
    Page {
        command: "status",
        examples: &[
            ("miniflow status", "The only engine there is"),
            (
                "miniflow status orders --json",
                "Everything known of one engine, for a program",
            ),
            (
                "miniflow status orders --watch 0.5",
                "The same on a screen that changes twice a second",
            ),
            (
                "miniflow status orders --json --watch 10 >> orders.ndjson",
                "A line of JSON every 10 seconds, until the engine ends",
            ),
        ],
        environment: &[],
        exit_status: &[
            ("0", "The engine lives, or has ended while it was watched"),
            ("1", "There is no such engine, or it is dead"),
            (
                "2",
                "Wrong command line, or there are several engines and none was named",
            ),
        ],
    },
    Page {
        command: "top",
        examples: &[
            (
                "miniflow top",
                "The only engine there is, or a choice of them",
            ),
            ("miniflow top orders --once | less", "One picture as text"),
        ],
        environment: &[("NO_COLOR", "If set to anything, no colours are shown")],
        exit_status: &[],
    },
    Page {
        command: "metrics",
        examples: &[
            (
                "miniflow metrics orders",
                "One exposition for Prometheus, on standard output",
            ),
            (
                "miniflow metrics orders --listen 127.0.0.1:9184",
                "Serves metrics and a live page until it is interrupted",
            ),
        ],
        environment: &[],
        exit_status: &[],
    },
    Page {
        command: "doctor",
        examples: &[
            (
                "miniflow doctor",
                "All checks, and a trial run of an engine",
            ),
            (
                "miniflow doctor --json | jq '.groups[].checks[] | select(.state != \"ok\")'",
                "Only what is not as it should be",
            ),
        ],
        environment: &[],
        exit_status: &[
            ("0", "Nothing fails; there may be warnings"),
            (
                "1",
                "Something fails: engines do not run here, or not as they should",
            ),
            ("2", "Wrong command line"),
        ],
    },
    Page {
        command: "clean",
        examples: &[
            (
                "miniflow clean --dry-run",
                "Says which names would be removed",
            ),
            ("miniflow clean", "Removes them"),
        ],
        environment: &[],
        exit_status: &[
            (
                "0",
                "No name of a dead engine is left, whether there was one or not",
            ),
            ("1", "/dev/shm cannot be read, locked or written"),
            ("2", "Wrong command line"),
        ],
    },
    Page {
        command: "bench",
        examples: &[
            ("miniflow bench", "All figures, in 20 seconds"),
            (
                "miniflow bench --only rtt --seconds 60",
                "Round trips only, for longer",
            ),
        ],
        environment: &[],
        exit_status: &[],
    },
    Page {
        command: "chaos",
        examples: &[
            ("miniflow chaos", "10 seconds of it"),
            (
                "miniflow chaos --kills 10000 --json",
                "Until 10 000 workers were killed",
            ),
        ],
        environment: &[],
        exit_status: &[
            (
                "0",
                "Every task ended exactly once, and nothing was left behind",
            ),
            (
                "1",
                "Something is wrong; the report says what, and has the seed",
            ),
            ("2", "Wrong command line"),
        ],
    },
    Page {
        command: "completions",
        examples: &[
            (
                "miniflow completions bash > ~/.local/share/bash-completion/completions/miniflow",
                "For bash, from the next shell on",
            ),
            (
                "miniflow completions zsh > ~/.zfunc/_miniflow",
                "For zsh, if ~/.zfunc is in fpath before compinit runs",
            ),
            (
                "miniflow completions fish > ~/.config/fish/completions/miniflow.fish",
                "For fish",
            ),
        ],
        environment: &[],
        exit_status: &[],
    },
    Page {
        command: "man",
        examples: &[
            (
                "miniflow man run | man -l -",
                "Shows the page of one command",
            ),
            (
                "miniflow man --out ~/.local/share/man/man1",
                "Writes all pages where man finds them",
            ),
        ],
        environment: &[],
        exit_status: &[],
    },
];
