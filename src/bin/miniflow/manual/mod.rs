//! The command line as a whole: what the help texts, the man pages and the completions are made of.

#![forbid(unsafe_code)]

mod pages;
mod roff;

use std::fmt::Write;

use clap::{Command, CommandFactory};

use self::pages::{ENVIRONMENT, EXIT_STATUS, GROUPS, PAGES, Page};
pub(crate) use self::roff::render;
use crate::Cli;

/// Texts are as wide as a terminal, but no wider than this.
const WIDTH: usize = 100;

/// The command line, with everything that `--help` is to say.
pub(crate) fn command() -> Command {
    let mut command = Cli::command();
    for page in PAGES {
        if command.find_subcommand(page.command).is_some() {
            command = command.mut_subcommand(page.command, |c| c.after_long_help(page.text()));
        }
    }
    let groups = groups(&command);
    command
        .max_term_width(WIDTH)
        .subcommand_value_name("COMMAND")
        .help_template(format!(
            "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{groups}\nOptions:\n{{options}}{{after-help}}"
        ))
        .after_long_help(format!(
            "{}\n\n{}\n\n`miniflow COMMAND --help` tells all about a command; `miniflow man` has it as man pages.",
            list("Environment", &ENVIRONMENT),
            list("Exit status", &EXIT_STATUS),
        ))
}

/// The command line without what is hidden, of which completions would tell.
pub(crate) fn visible(command: &Command) -> Command {
    let mut copy = Command::new(command.get_name().to_owned());
    if let Some(about) = command.get_about() {
        copy = copy.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        copy = copy.version(version.to_owned());
    }
    let args = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let subcommands = command.get_subcommands().filter(|c| !c.is_hide_set());
    copy.args(args.cloned())
        .subcommands(subcommands.map(visible))
}

/// The commands by what they are for.
fn groups_of(
    command: &Command,
) -> impl Iterator<Item = (&'static str, impl Iterator<Item = &Command>)> {
    GROUPS.iter().map(|&(heading, names)| {
        let subcommands = names
            .iter()
            .filter_map(|name| command.find_subcommand(name));
        (heading, subcommands)
    })
}

/// The same as text, with their one-liners.
fn groups(command: &Command) -> String {
    let names = GROUPS.iter().flat_map(|(_, names)| *names);
    let width = names.map(|name| name.len()).max().unwrap_or_default();
    let mut text = String::new();
    // Writing to a string cannot fail.
    for (heading, subcommands) in groups_of(command) {
        let _ = writeln!(text, "\n{heading}:");
        for subcommand in subcommands {
            let about = subcommand.get_about().map(ToString::to_string);
            let (name, about) = (subcommand.get_name(), about.unwrap_or_default());
            let _ = writeln!(text, "  {name:<width$}  {about}");
        }
    }
    text
}

/// Terms and what they mean, below a heading.
fn list(heading: &str, entries: &[(&str, &str)]) -> String {
    let width = entries.iter().map(|(term, _)| term.len()).max();
    let width = width.unwrap_or_default();
    let mut text = format!("{heading}:");
    for (term, meaning) in entries {
        let mut lines = wrap(meaning, WIDTH - width - 4).into_iter();
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n  {term:<width$}  {}",
            lines.next().unwrap_or_default()
        );
        for line in lines {
            let _ = write!(text, "\n  {:<width$}  {line}", "");
        }
    }
    text
}

/// The lines of a text that are not longer than `width`, unless a word is.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

impl Page {
    /// What follows the options in the long help.
    fn text(&self) -> String {
        let mut parts = Vec::new();
        if !self.examples.is_empty() {
            let examples = (self.examples.iter())
                .map(|(command, what)| format!("\n  {command}\n      {what}"));
            parts.push(format!("Examples:{}", examples.collect::<String>()));
        }
        if !self.environment.is_empty() {
            parts.push(list("Environment", self.environment));
        }
        parts.push(list("Exit status", self.exit_status()));
        parts.join("\n\n")
    }

    fn exit_status(&self) -> &'static [(&'static str, &'static str)] {
        match self.exit_status {
            [] => &EXIT_STATUS,
            own => own,
        }
    }

    /// The commands for similar ends.
    fn relatives(&self) -> impl Iterator<Item = &'static str> {
        let group = GROUPS
            .iter()
            .find(|(_, names)| names.contains(&self.command));
        let names = group.map_or(&[][..], |(_, names)| names);
        names.iter().copied().filter(|&name| name != self.command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visible_subcommands() -> Vec<Command> {
        let command = command();
        let subcommands = command.get_subcommands().filter(|c| !c.is_hide_set());
        subcommands.cloned().collect()
    }

    #[test]
    fn clap_finds_no_contradictions() {
        command().debug_assert();
        visible(&command()).debug_assert();
    }

    #[test]
    fn every_command_is_in_one_group_and_has_a_page() {
        for subcommand in visible_subcommands() {
            let name = subcommand.get_name();
            let groups = GROUPS.iter().filter(|(_, names)| names.contains(&name));
            assert_eq!(groups.count(), 1, "groups of {name}");
            let pages = PAGES.iter().filter(|page| page.command == name);
            assert_eq!(pages.count(), 1, "pages of {name}");
        }
    }

    #[test]
    fn every_command_and_every_option_is_described() {
        for subcommand in visible_subcommands() {
            let name = subcommand.get_name();
            let about = subcommand
                .get_about()
                .unwrap_or_else(|| panic!("{name}: no about"));
            let about = about.to_string();
            assert!(!about.ends_with('.') && about.len() < 90, "{name}: {about}");
            assert!(subcommand.get_long_about().is_some(), "{name}");
            for arg in subcommand.get_arguments().filter(|arg| !arg.is_hide_set()) {
                assert!(arg.get_help().is_some(), "{name}: {}", arg.get_id());
            }
        }
    }

    #[test]
    fn the_help_of_the_whole_has_every_command_with_its_one_liner() {
        let help = command().render_long_help().to_string();
        for subcommand in visible_subcommands() {
            let about = subcommand
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default();
            let lines = help.lines().filter(|line| line.ends_with(&about));
            let lines: Vec<&str> = lines.collect();
            assert_eq!(lines.len(), 1, "{help}");
            assert!(
                lines[0].trim_start().starts_with(subcommand.get_name()),
                "{help}"
            );
        }
        for hidden in ["program-worker", "program-guard"] {
            assert!(!help.contains(hidden), "{help}");
        }
        assert!(
            help.contains("--verbose") && help.contains("--version"),
            "{help}"
        );
    }

    #[test]
    fn long_meanings_are_wrapped_below_themselves() {
        assert_eq!(wrap("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrap("", 4), [""; 0]);
        let long = "word ".repeat(30);
        let text = list("Heading", &[("x", &long), ("yy", "short")]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].starts_with("  x   word") && lines[2].starts_with("      word"));
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{text}");
    }

    #[test]
    fn what_is_hidden_is_not_completed() {
        let visible = visible(&command());
        assert!(visible.find_subcommand("program-worker").is_none());
        let chaos = visible.find_subcommand("chaos").unwrap();
        assert!(chaos.get_arguments().all(|arg| arg.get_id() != "sabotage"));
        assert!(chaos.get_arguments().any(|arg| arg.get_id() == "kills"));
    }
}
