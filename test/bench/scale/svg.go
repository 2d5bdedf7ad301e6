// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
)

// curve is a picture of how one figure grows with the mesh. Both axes are logarithmic: a straight line at 45° is linear
// growth, a flat one is none.
type curve struct {
	file, title, unit string
	series            []series
}

type series struct {
	name   string
	points []point
}

type point struct{ x, y float64 } // endpoints, figure

// figures that are drawn.
var figures = []struct {
	file, title, unit string
	of                func(Size) float64
}{
	{"latency.svg", "One endpoint changes under churn: writer → kernel, p99", "ms", func(s Size) float64 { return s.Churn.Latency.P99 }},
	{"change.svg", "Agent's CPU time for one endpoint's change, p50", "ms", func(s Size) float64 { return s.Quiet.CPU.P50 }},
	{"bootstrap.svg", "Agent: connect → kernel programmed", "ms", func(s Size) float64 { return s.Bootstrap }},
	{"agent-memory.svg", "Agent: resident memory", "MiB", func(s Size) float64 { return float64(s.AgentResident) / (1 << 20) }},
	{"operator-memory.svg", "Operator: resident memory", "MiB", func(s Size) float64 { return float64(s.OperatorResident) / (1 << 20) }},
	{"disk.svg", "Agent: written to disk for one change", "KiB", func(s Size) float64 { return float64(s.Quiet.Disk) / (1 << 10) }},
}

func curves(results []*Result) []curve {
	var out []curve
	for _, f := range figures {
		c := curve{file: f.file, title: f.title, unit: f.unit}
		for _, r := range results {
			s := series{name: r.Label}
			for _, size := range r.Sizes {
				if y := f.of(size); y > 0 {
					s.points = append(s.points, point{float64(size.Endpoints), y})
				}
			}
			if len(s.points) > 0 {
				c.series = append(c.series, s)
			}
		}
		if len(c.series) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// The picture's measures, in pixels.
const (
	width, height            = 640, 300
	left, right, top, bottom = 70, 110, 40, 50
)

// Colours that can be read on white and on black.
var colours = []string{"#d9822b", "#3b82c4", "#2e9e6b", "#a05bb0"}

const grey = "#808080"

func (c curve) svg() []byte {
	x0, x1 := c.decades(func(p point) float64 { return p.x })
	y0, y1 := c.decades(func(p point) float64 { return p.y })
	x := func(v float64) float64 {
		return left + (math.Log10(v)-x0)/(x1-x0)*(width-left-right)
	}
	y := func(v float64) float64 {
		return height - bottom - (math.Log10(v)-y0)/(y1-y0)*(height-top-bottom)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	text := func(x, y float64, anchor, fill, s string) {
		fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, fill, html.EscapeString(s))
	}
	rule := func(xa, ya, xb, yb float64) {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-opacity="0.35"/>`+"\n", xa, ya, xb, yb, grey)
	}
	text(left, 22, "start", grey, c.title)
	for d := x0; d <= x1; d++ {
		at := x(math.Pow(10, d))
		rule(at, top, at, height-bottom)
		text(at, height-bottom+18, "middle", grey, short(math.Pow(10, d)))
	}
	for d := y0; d <= y1; d++ {
		at := y(math.Pow(10, d))
		rule(left, at, width-right, at)
		text(left-8, at+4, "end", grey, short(math.Pow(10, d))+" "+c.unit)
	}
	text((left+width-right)/2, height-12, "middle", grey, "endpoints in the mesh")
	var labels []float64
	for i, s := range c.series {
		colour := colours[i%len(colours)]
		var path bytes.Buffer
		for _, p := range s.points {
			fmt.Fprintf(&path, "%.1f,%.1f ", x(p.x), y(p.y))
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", bytes.TrimSpace(path.Bytes()), colour)
		for _, p := range s.points {
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(p.x), y(p.y), colour)
		}
		last := s.points[len(s.points)-1]
		text(x(last.x)+8, free(&labels, y(last.y)+4), "start", colour, fmt.Sprintf("%s, %s", s.name, short(last.y)))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// free is the height for a label, moved down from where it should be until it covers none of those before it.
func free(taken *[]float64, y float64) float64 {
	const line = 14
	for slices.ContainsFunc(*taken, func(other float64) bool { return math.Abs(other-y) < line }) {
		y++
	}
	*taken = append(*taken, y)
	return y
}

// decades are whole powers of ten around all points, at least one apart.
func (c curve) decades(of func(point) float64) (low, high float64) {
	var all []float64
	for _, s := range c.series {
		for _, p := range s.points {
			all = append(all, math.Log10(of(p)))
		}
	}
	low, high = math.Floor(slices.Min(all)), math.Ceil(slices.Max(all))
	return low, max(high, low+1)
}

func short(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", round(v/1e6))
	case v >= 1e3:
		return fmt.Sprintf("%gk", round(v/1e3))
	}
	return fmt.Sprintf("%g", round(v))
}

// round to three figures.
func round(v float64) float64 {
	if v == 0 {
		return 0
	}
	scale := math.Pow(10, 2-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}
