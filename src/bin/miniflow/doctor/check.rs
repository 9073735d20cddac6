//! What is checked, and the report of it: a list for people, one JSON object for programs.

use std::fmt;

use serde::Serialize;

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Nothing has to be changed.
    Ok,
    /// The engine runs, but something costs speed or may run out.
    Warn,
    /// The engine does not run, or not as it promises.
    Fail,
    /// Nothing could be found out, or there is nothing to find.
    Skip,
}

impl State {
    const ALL: [Self; 4] = [Self::Ok, Self::Warn, Self::Fail, Self::Skip];

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
        }
    }
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) state: State,
    /// What there is.
    pub(super) found: String,
    /// What to change, if anything is to be, or what can be.
    pub(super) advice: Option<String>,
}

impl Check {
    fn new(name: &'static str, state: State, found: impl Into<String>) -> Self {
        Self {
            name,
            state,
            found: found.into(),
            advice: None,
        }
    }

    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, State::Ok, found)
    }

    /// What is only a warning needs advice; so does what fails.
    pub(super) fn warn(
        name: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, State::Warn, found).advise(advice)
    }

    pub(super) fn fail(
        name: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, State::Fail, found).advise(advice)
    }

    pub(super) fn skip(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, State::Skip, why)
    }

    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// Checks of one kind.
#[derive(Debug, Serialize)]
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) checks: Vec<Check>,
}

/// All that was found out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    miniflow: &'static str,
    /// Whether nothing fails.
    ok: bool,
    groups: Vec<Group>,
}

impl Report {
    pub(super) fn new(groups: Vec<Group>) -> Self {
        let mut report = Self {
            miniflow: env!("CARGO_PKG_VERSION"),
            ok: false,
            groups,
        };
        report.ok = report.count(State::Fail) == 0;
        report
    }

    pub(super) fn is_ok(&self) -> bool {
        self.ok
    }

    fn checks(&self) -> impl Iterator<Item = &Check> {
        self.groups.iter().flat_map(|group| &group.checks)
    }

    fn count(&self, state: State) -> usize {
        self.checks().filter(|check| check.state == state).count()
    }

    /// The JSON object, and the end of its line.
    pub(super) fn json(&self) -> String {
        let mut text = serde_json::to_string(self).expect("strings and a flag only");
        text.push('\n');
        text
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks().map(|check| check.name.len()).max();
        let width = width.unwrap_or_default();
        for group in &self.groups {
            writeln!(f, "{}", group.name)?;
            for check in &group.checks {
                let state = check.state.name();
                writeln!(f, "  {state:<4}  {:<width$}  {}", check.name, check.found)?;
                if let Some(advice) = &check.advice {
                    writeln!(f, "        {:<width$}  -> {advice}", "")?;
                }
            }
        }
        let counts = State::ALL.map(|state| format!("{} {}", self.count(state), state.name()));
        writeln!(f, "\n{}", counts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: Vec<Check>) -> Report {
        let name = "kernel";
        Report::new(vec![Group { name, checks }])
    }

    #[test]
    fn only_a_failure_makes_the_report_bad() {
        let fine = vec![
            Check::ok("a", "1"),
            Check::warn("b", "2", "more"),
            Check::skip("c", "3"),
        ];
        assert!(report(fine.clone()).is_ok());
        let bad = [fine, vec![Check::fail("d", "4", "less")]].concat();
        assert!(!report(bad).is_ok());
    }

    #[test]
    fn people_read_state_name_finding_and_advice() {
        let text = report(vec![
            Check::ok("version", "Linux 6.1"),
            Check::fail("pid", "none", "get one"),
        ]);
        let expected = "\
kernel
  ok    version  Linux 6.1
  FAIL  pid      none
                 -> get one

1 ok, 0 warn, 1 FAIL, 0 skip
";
        assert_eq!(text.to_string(), expected);
    }

    #[test]
    fn programs_read_the_same_by_field() {
        let text = report(vec![Check::warn("pid", "one", "get two")]).json();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["ok"], true);
        let check = serde_json::json!(
            {"name": "pid", "state": "warn", "found": "one", "advice": "get two"}
        );
        assert_eq!(json["groups"][0]["checks"], serde_json::json!([check]));
    }
}
