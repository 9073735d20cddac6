//! Man pages: what `clap_mangen` makes of the options, with the sections that people expect.

use std::io::Write;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::groups_of;
use super::pages::{ENVIRONMENT, EXIT_STATUS, PAGES, Page};

/// The page of the whole (`command` has subcommands) or of one subcommand. It must have been built, so
/// that it knows its full name.
pub(crate) fn render(command: &Command) -> Vec<u8> {
    let man = Man::new(command.clone());
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name());
    let version = env!("CARGO_PKG_VERSION");
    let mut page = Vec::new();
    // Writing to a vector cannot fail. The title is our own: `clap_mangen` leaves an empty date out.
    let _ = writeln!(
        page,
        r#".TH {} 1 "" "miniflow {version}" "miniflow manual""#,
        name.to_uppercase()
    );
    let _ = man.render_name_section(&mut page);
    let _ = man.render_synopsis_section(&mut page);
    let mut middle = Roff::new();
    let mut end = Roff::new();
    description(command, &mut middle);
    match PAGES.iter().find(|page| page.command == command.get_name()) {
        Some(page) => sections_of(page, &mut end),
        None => {
            commands(command, &mut middle);
            terms("ENVIRONMENT", &ENVIRONMENT, &mut end);
            terms("EXIT STATUS", &EXIT_STATUS, &mut end);
        }
    }
    let _ = middle.to_writer(&mut page);
    let _ = man.render_options_section(&mut page);
    let _ = end.to_writer(&mut page);
    page
}

/// The long description without its first paragraph, which is the one-liner of NAME. Lines that are
/// indented stay as they are.
fn description(command: &Command, out: &mut Roff) {
    let text = command.get_long_about().map(ToString::to_string);
    let text = text.unwrap_or_default();
    out.control("SH", ["DESCRIPTION"]);
    let mut is_filled = true;
    for line in text.lines().skip(1).skip_while(|line| line.is_empty()) {
        if line.starts_with(' ') == is_filled {
            is_filled = !is_filled;
            out.control(if is_filled { "fi" } else { "nf" }, []);
        }
        match line.is_empty() {
            true => out.control("PP", []),
            false => out.text([roman(line)]),
        };
    }
    if !is_filled {
        out.control("fi", []);
    }
}

fn sections_of(page: &Page, out: &mut Roff) {
    if !page.environment.is_empty() {
        terms("ENVIRONMENT", page.environment, out);
    }
    terms("EXIT STATUS", page.exit_status(), out);
    if !page.examples.is_empty() {
        out.control("SH", ["EXAMPLES"]);
        for (command, what) in page.examples {
            out.control("PP", []);
            out.text([roman(format!("{what}:"))]);
            out.control("PP", []);
            out.control("RS", ["4"]);
            out.control("nf", []);
            out.text([bold(*command)]);
            out.control("fi", []);
            out.control("RE", []);
        }
    }
    let relatives = page.relatives().map(|name| format!("miniflow-{name}"));
    let all: Vec<String> = [String::from("miniflow")]
        .into_iter()
        .chain(relatives)
        .collect();
    out.control("SH", ["SEE ALSO"]);
    references(&all, out);
}

/// The commands by what they are for.
fn commands(command: &Command, out: &mut Roff) {
    out.control("SH", ["COMMANDS"]);
    for (heading, subcommands) in groups_of(command) {
        out.control("SS", [heading]);
        for subcommand in subcommands {
            out.control("TP", []);
            out.text([
                bold(format!("miniflow-{}", subcommand.get_name())),
                roman("(1)"),
            ]);
            let about = subcommand.get_about().map(ToString::to_string);
            out.text([roman(about.unwrap_or_default())]);
        }
    }
}

fn terms(heading: &str, entries: &[(&str, &str)], out: &mut Roff) {
    out.control("SH", [heading]);
    for (term, meaning) in entries {
        out.control("TP", []);
        out.text([bold(*term)]);
        out.text([roman(format!("{meaning}."))]);
    }
}

fn references(names: &[String], out: &mut Roff) {
    for (place, name) in names.iter().enumerate() {
        let end = if place + 1 < names.len() {
            "(1),"
        } else {
            "(1)"
        };
        out.text([bold(name.as_str()), roman(end)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of the page of a subcommand, or of the whole.
    fn page(name: Option<&str>) -> String {
        let mut command = crate::manual::command();
        command.build();
        let command = match name {
            Some(name) => command.find_subcommand(name).unwrap().clone(),
            None => command,
        };
        String::from_utf8(render(&command)).unwrap()
    }

    fn sections(page: &str) -> Vec<&str> {
        let headings = page.lines().filter_map(|line| line.strip_prefix(".SH "));
        headings.map(|heading| heading.trim_matches('"')).collect()
    }

    #[test]
    fn a_page_has_the_sections_that_people_expect() {
        let expected = [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "EXIT STATUS",
            "EXAMPLES",
            "SEE ALSO",
        ];
        assert_eq!(sections(&page(Some("doctor"))), expected);
        let expected = [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "COMMANDS",
            "OPTIONS",
            "ENVIRONMENT",
            "EXIT STATUS",
        ];
        assert_eq!(sections(&page(None)), expected);
    }

    #[test]
    fn what_is_indented_stays_as_it_is_and_the_rest_is_filled() {
        let about = "One line\n\nFilled text:\n  a   b\n  c\nfilled again";
        let mut roff = Roff::new();
        description(&Command::new("x").long_about(about), &mut roff);
        let text = roff.to_roff();
        assert!(
            text.ends_with("Filled text:\n.nf\n  a   b\n  c\n.fi\nfilled again\n"),
            "{text}"
        );
        assert!(!text.contains("One line"), "{text}");
    }

    #[test]
    fn a_page_names_command_version_and_every_option() {
        let page = page(Some("run"));
        assert!(page.contains(".TH MINIFLOW-RUN 1"), "{page}");
        assert!(page.contains(env!("CARGO_PKG_VERSION")), "{page}");
        for option in ["params", "workers", "resume", "preload", "verbose"] {
            assert!(
                page.contains(&format!("\\-\\-{option}")),
                "{option} in {page}"
            );
        }
        assert!(page.contains("143"), "{page}");
    }
}
