//! What a program shows on a terminal, as an SVG picture: for `ci/pictures.sh`.
//!
//! `cargo run --example screenshot -- COLUMNSxROWS SECONDS PICTURE.svg PROGRAM [ARGUMENT]...` runs the
//! program on a terminal of this size for so long, draws every cell where it stands, and presses q.
#![allow(clippy::unwrap_used, reason = "a tool: whatever fails ends it")]

#[path = "../tests/common/pty.rs"]
mod pty;

use std::fmt::Write;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use pty::Pty;
use vt100::{Cell, Color, Screen};

/// Of a cell, in pixels.
const WIDTH: u16 = 9;
const HEIGHT: u16 = 19;
/// Around the picture.
const MARGIN: u16 = 16;
/// From the top of a cell to the line that letters stand on.
const BASE: f32 = 14.0;
/// Blocks of neighbouring rows do not quite touch.
const GAP: f32 = 1.0;

const GROUND: &str = "#15181e";
const TEXT: &str = "#d6dae2";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [size, seconds, path, program, rest @ ..] = &*arguments else {
        return ExitCode::from(2);
    };
    let (columns, rows) = size.split_once('x').unwrap();
    let mut command = Command::new(program);
    command
        .args(rest)
        .env("TERM", "xterm-256color")
        .env("LC_ALL", "C.UTF-8")
        .env_remove("NO_COLOR");
    let mut pty = Pty::start(command, rows.parse().unwrap(), columns.parse().unwrap());
    thread::sleep(Duration::from_secs_f64(seconds.parse().unwrap()));
    std::fs::write(path, svg(&pty.screen())).unwrap();
    pty.press("q");
    match pty.wait().success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// What makes letters look alike.
#[derive(Clone, PartialEq)]
struct Style {
    color: &'static str,
    bold: bool,
    dim: bool,
}

fn svg(screen: &Screen) -> String {
    let (rows, columns) = screen.size();
    let (width, height) = (
        columns.get() * WIDTH + 2 * MARGIN,
        rows.get() * HEIGHT + 2 * MARGIN,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"DejaVu Sans Mono, monospace\" font-size=\"14.5\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"{GROUND}\"/>\n"
    );
    for row in 0..rows.get() {
        // Letters that follow one another in one style, each with its place.
        let mut run: Option<(Style, Vec<String>, String)> = None;
        for column in 0..columns.get() {
            let Some(cell) = screen.cell(row, column) else {
                continue;
            };
            let x = f32::from(MARGIN + column * WIDTH);
            let y = f32::from(MARGIN + row * HEIGHT);
            let style = style(cell);
            if cell.inverse() {
                let (width, height) = (f32::from(WIDTH), f32::from(HEIGHT));
                rect(&mut svg, TEXT, (x, y, width, height), 1.0);
            }
            let text = cell.contents();
            let symbol = text.chars().next().unwrap_or(' ');
            if symbol == ' ' || block(&mut svg, symbol, &style, x, y) {
                letters(&mut svg, run.take(), y);
                continue;
            }
            if run.as_ref().is_some_and(|(of, _, _)| *of != style) {
                letters(&mut svg, run.take(), y);
            }
            let (_, places, letters) =
                run.get_or_insert_with(|| (style, Vec::new(), String::new()));
            places.push(x.to_string());
            letters.push_str(&escaped(text));
        }
        let y = f32::from(MARGIN + row * HEIGHT);
        letters(&mut svg, run, y);
    }
    svg.push_str("</svg>\n");
    svg
}

fn letters(svg: &mut String, run: Option<(Style, Vec<String>, String)>, y: f32) {
    let Some((style, places, text)) = run else {
        return;
    };
    let weight = if style.bold {
        " font-weight=\"bold\""
    } else {
        ""
    };
    writeln!(
        svg,
        "<text y=\"{}\" x=\"{}\" fill=\"{}\" opacity=\"{}\"{weight}>{text}</text>",
        y + BASE,
        places.join(" "),
        style.color,
        opacity(&style),
    )
    .unwrap();
}

/// Draws what fonts draw with seams; whether it is such a character.
fn block(svg: &mut String, symbol: char, style: &Style, x: f32, y: f32) -> bool {
    let (width, height) = (f32::from(WIDTH), f32::from(HEIGHT));
    let opacity = opacity(style);
    match symbol {
        // From one eighth of a cell to the whole.
        '\u{2581}'..='\u{2588}' => {
            #[expect(clippy::cast_precision_loss, reason = "1 to 8")]
            let eighths = (symbol as u32 - 0x2580) as f32;
            let tall = (height - GAP) * eighths / 8.0;
            rect(
                svg,
                style.color,
                (x, y + height - tall, width, tall),
                opacity,
            );
        }
        // A light shade.
        '\u{2591}' => {
            let place = (x, y + GAP, width, height - GAP);
            rect(svg, style.color, place, opacity * 0.3);
        }
        // A line across.
        '\u{2500}' => {
            let place = (x, y + height / 2.0, width, 1.0);
            rect(svg, style.color, place, opacity * 0.6);
        }
        _ => return false,
    }
    true
}

fn rect(svg: &mut String, color: &str, (x, y, width, height): (f32, f32, f32, f32), opacity: f32) {
    writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{color}\" \
         opacity=\"{opacity}\" shape-rendering=\"crispEdges\"/>"
    )
    .unwrap();
}

fn style(cell: &Cell) -> Style {
    let color = match cell.fgcolor() {
        _ if cell.inverse() => GROUND,
        Color::Idx(1 | 9) => "#f2675f",
        Color::Idx(2 | 10) => "#83c776",
        Color::Idx(3 | 11) => "#e3b75b",
        Color::Idx(4 | 12) => "#6ea4f5",
        Color::Idx(5 | 13) => "#c78be0",
        Color::Idx(6 | 14) => "#4fb9d0",
        _ => TEXT,
    };
    Style {
        color,
        bold: cell.bold(),
        dim: cell.dim(),
    }
}

fn opacity(style: &Style) -> f32 {
    if style.dim { 0.6 } else { 1.0 }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
