//! Charts of a run: the cost ratios of all scenarios, and latency percentiles of each scenario
//! that has latencies.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::report::{Measured, Results, cost};
use crate::stats::median;

const SIZE: (u32, u32) = (960, 480);
/// Colours of the proxies, told apart by readers with the common colour blindnesses (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(90, 90, 90),
    RGBColor(86, 180, 233),
];

/// Points of a line: nines, microseconds.
type Line = Vec<(f64, f64)>;

/// Draws into `out`; gives the names of the files.
pub fn draw(results: &Results, out: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    if draw_ratios(results, &out.join("ratios.svg"))? {
        names.push("ratios.svg".to_owned());
    }
    for measured in &results.scenarios {
        let name = format!("latency-{}.svg", measured.name);
        if draw_latency(measured, &out.join(&name))? {
            names.push(name);
        }
    }
    Ok(names)
}

/// What is drawn for one scenario and peer.
struct Bar {
    scenario: usize,
    peer: usize,
    ratio: f64,
}

/// The costs against those of each peer, and the scenarios that have any.
struct Ratios<'r> {
    peers: Vec<&'r str>,
    compared: Vec<&'r Measured>,
    bars: Vec<Bar>,
}

fn ratios(results: &Results) -> Ratios<'_> {
    let peers: Vec<&str> = results
        .peers
        .iter()
        .skip(1)
        .map(|(name, _)| name.as_str())
        .collect();
    let mut bars: Vec<Bar> = Vec::new();
    let mut compared: Vec<&Measured> = Vec::new();
    for measured in results
        .scenarios
        .iter()
        .filter(|measured| measured.has_work())
    {
        let before = bars.len();
        bars.extend(peers.iter().enumerate().filter_map(|(peer, name)| {
            Some(Bar {
                scenario: compared.len(),
                peer,
                ratio: median(&measured.ratios(name, cost))?,
            })
        }));
        if bars.len() > before {
            compared.push(measured);
        }
    }
    Ratios {
        peers,
        compared,
        bars,
    }
}

/// A bar per scenario and peer; false when there is nothing to compare.
fn draw_ratios(results: &Results, path: &Path) -> Result<bool, Box<dyn Error>> {
    let Ratios {
        peers,
        compared,
        bars,
    } = ratios(results);
    let Some(highest) = bars.iter().map(|bar| bar.ratio).max_by(f64::total_cmp) else {
        return Ok(false);
    };
    let subject = results.peers.first().map_or("", |(name, _)| name);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            format!(
                "processor time per unit of work, {subject} divided by the peer (below 1: \
                {subject} is cheaper)"
            ),
            ("sans-serif", 18),
        )
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..compared.len() as f64, 0.0..highest.max(1.0) * 1.4)?;
    let label = |at: &f64| {
        let scenario = compared
            .get(at.floor() as usize)
            .filter(|_| at.fract() > 0.4);
        scenario.map_or(String::new(), |measured| measured.name.clone())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * compared.len() + 1)
        .x_label_formatter(&label)
        .x_label_style(("sans-serif", 10))
        .draw()?;
    let width = 0.8 / peers.len() as f64;
    for (index, peer) in peers.iter().enumerate() {
        let colour = colour(index + 1);
        let of_peer = bars.iter().filter(|bar| bar.peer == index);
        if of_peer.clone().count() == 0 {
            continue;
        }
        let rectangles = of_peer.map(|bar| {
            let left = bar.scenario as f64 + 0.1 + index as f64 * width;
            let right = left + 0.9 * width;
            Rectangle::new([(left, 0.0), (right, bar.ratio)], colour.filled())
        });
        chart
            .draw_series(rectangles)?
            .label(*peer)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    chart.draw_series(LineSeries::new(
        [(0.0, 1.0), (compared.len() as f64, 1.0)],
        BLACK,
    ))?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(true)
}

/// Latency by percentile, one line per proxy, each the median of the rounds.
fn draw_latency(measured: &Measured, path: &Path) -> Result<bool, Box<dyn Error>> {
    let lines: Vec<(usize, &str, Line)> = measured
        .peers()
        .into_iter()
        .enumerate()
        .map(|(index, peer)| (index, peer, percentiles(measured, peer)))
        .filter(|(.., line)| !line.is_empty())
        .collect();
    let points = || lines.iter().flat_map(|(.., line)| line);
    let Some(right) = points().map(|(x, _)| *x).max_by(f64::total_cmp) else {
        return Ok(false);
    };
    let top = points().map(|(_, y)| *y).fold(1.0, f64::max);
    let bottom = points().map(|(_, y)| *y).fold(top, f64::min).max(1.0);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("latency, {}", measured.title), ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..right, (bottom * 0.8..top * 1.3).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("µs")
        .x_label_formatter(&|nines| percentile_label(*nines))
        .draw()?;
    for (index, peer, line) in lines {
        let colour = colour(index);
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(peer)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(true)
}

/// Points (nines, median µs): the axis counts nines, so that 99 and 99.9 are as far apart as 90
/// and 99.
fn percentiles(measured: &Measured, peer: &str) -> Line {
    let samples: Vec<_> = measured
        .samples
        .iter()
        .filter(|sample| sample.peer == peer)
        .collect();
    let Some(first) = samples.first() else {
        return Vec::new();
    };
    let at = |percentile: f64| {
        let values: Vec<f64> = samples
            .iter()
            .filter_map(|sample| {
                sample
                    .percentiles
                    .iter()
                    .find(|(one, _)| *one == percentile)
            })
            .map(|(_, value)| *value as f64)
            .collect();
        median(&values)
    };
    first
        .percentiles
        .iter()
        .filter_map(|(one, _)| Some((nines(*one), at(*one)?)))
        .collect()
}

fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

/// Labels whole nines only.
fn percentile_label(nines: f64) -> String {
    if (nines - nines.round()).abs() > 0.01 {
        return String::new();
    }
    let percentile = 100.0 * (1.0 - 10f64.powf(-nines));
    let text = format!("{percentile:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_counts_nines() {
        assert!((nines(99.0) - 2.0).abs() < 1e-9);
        assert!((nines(99.9) - 3.0).abs() < 1e-9);
        assert_eq!(percentile_label(3.0), "99.9");
        assert_eq!(percentile_label(0.0), "0");
        assert_eq!(percentile_label(1.5), "");
    }
}
