// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package journal keeps records on disk so that a change costs the change.
//
// The file is a magic line and frames, each with a checksum that binds it to the one before. Changes are appended as the
// relay sent them. A mark among them says that everything up to it is a whole state, and where the stream was: reading ends
// at the last mark that an unbroken chain leads to, so a file that was cut off or damaged anywhere gives an earlier whole
// state or none, never a mixture. When most of the file is outdated it is copied without that into a new one, which takes
// its place as a whole.
//
//	magic │ origin │ change … change mark │ change mark │ …
//
// What is not a whole state yet (a snapshot that still arrives) is written all the same, so that nobody has to hold it.
package journal
